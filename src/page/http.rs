//! As much of HTTP/1.1 as one page needs. Never keeps a connection, and never reads more than a bounded head.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use serde::Serialize;

const MAX_HEAD: usize = 8 * 1024;
const MAX_TIME: Duration = Duration::from_secs(5);

/// What of a request matters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub method: String,
    pub path: String,
    pub host: String,
    pub wants_text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    shows_body: bool,
}

/// The request, or what to say to it, or nothing where nobody is left to say it to.
pub(super) fn read(stream: &mut TcpStream) -> Result<Request, Option<Response>> {
    let head = read_head(stream)?;
    parse(&head).ok_or_else(|| Some(Response::refusal(400, "That is no HTTP request.")))
}

fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, Option<Response>> {
    let deadline = Instant::now() + MAX_TIME;
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    while !ends(&head) {
        if head.len() > MAX_HEAD {
            return Err(Some(Response::refusal(431, "That request is too long.")));
        }
        // One deadline for the whole head: a byte now and then does not keep a thread.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let count = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut buffer));
        match count {
            Ok(0) => return Err(None),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => {
                return Err(Some(Response::refusal(408, "That took too long.")));
            }
            Err(_) => return Err(None),
        }
        if Instant::now() >= deadline && !ends(&head) {
            return Err(Some(Response::refusal(408, "That took too long.")));
        }
    }
    Ok(head)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n") || head.windows(2).any(|window| window == b"\n\n")
}

fn parse(head: &[u8]) -> Option<Request> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") || target.is_empty() {
        return None;
    }
    let headers: Vec<(String, &str)> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| *value);
    Some(Request {
        method: method.to_owned(),
        path: path(target).to_owned(),
        host: super::shorten(header("host"), 80),
        wants_text: wants_text(header("accept"), header("user-agent")),
    })
}

/// Without a query, and without the scheme and host that a client of a proxy writes.
fn path(target: &str) -> &str {
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or("/")
}

/// Who asks for plain text, and programs of the terminal that take anything.
fn wants_text(accept: &str, agent: &str) -> bool {
    let terminal = ["curl/", "Wget/", "HTTPie/"].iter().any(|name| agent.starts_with(name));
    let anything = matches!(accept, "" | "*/*" | "*/*;q=0.8");
    (terminal && anything) || (accept.contains("text/plain") && !accept.contains("text/html"))
}

impl Response {
    fn new(status: u16, kind: &'static str, body: Vec<u8>) -> Self {
        Self { status, kind, body, shows_body: true }
    }

    pub fn html(text: String) -> Self {
        Self::new(200, "text/html; charset=utf-8", text.into_bytes())
    }

    pub fn text(text: String) -> Self {
        Self::new(200, "text/plain; charset=utf-8", text.into_bytes())
    }

    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec_pretty(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self::new(200, "application/json", body)
            }
            Err(_) => Self::refusal(500, "That cannot be written as JSON."),
        }
    }

    pub fn refusal(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{text}\n").into_bytes())
    }

    /// HEAD gets the head of what GET would get.
    pub fn without_body(mut self, request: &Request) -> Self {
        self.shows_body = request.method != "HEAD";
        self
    }

    fn head(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            _ => "Internal Server Error",
        };
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\
             Cache-Control: no-store\r\nVary: Accept, User-Agent\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\r\n",
            self.status,
            self.kind,
            self.body.len()
        )
    }
}

/// Sends it and closes. A visitor that does not listen is not waited for.
pub(super) fn write(mut stream: TcpStream, response: &Response) {
    let mut bytes = response.head().into_bytes();
    if response.shows_body {
        bytes.extend_from_slice(&response.body);
    }
    let sent = stream.set_write_timeout(Some(MAX_TIME)).and_then(|()| stream.write_all(&bytes));
    if sent.is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        drain(stream);
    }
}

/// To close with words unread would reset the connection, and the visitor might never see the answer.
fn drain(mut stream: TcpStream) {
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut buffer = [0; 4096];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        let count = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut buffer));
        if !count.is_ok_and(|count| count > 0) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_read_for_what_matters() {
        let head = b"GET http://x:1/text?a=b HTTP/1.1\r\nHOST:  x:1 \r\naccept: text/plain\r\n\r\n";
        let expected =
            Request { method: "GET".into(), path: "/text".into(), host: "x:1".into(), wants_text: true };
        assert_eq!(parse(head), Some(expected));
    }

    #[test]
    fn browsers_do_not_want_text() {
        assert!(!wants_text("text/html,application/xhtml+xml,*/*;q=0.8", "Mozilla/5.0"));
        assert!(!wants_text("text/html, text/plain", "Mozilla/5.0"));
        assert!(!wants_text("*/*", "Mozilla/5.0"));
        assert!(!wants_text("text/html", "curl/8.0"));
        assert!(wants_text("*/*", "curl/8.0"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }
    }
}
