//! What is said to the agent and what it answers: one line of JSON each, on a unix socket that only its own user may
//! enter. Never starts an agent.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// No line is longer, in bytes.
pub const LONGEST_LINE: usize = 1 << 20;
/// How long an answer is waited for: longer than an agent that is alive ever needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the agent can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Nothing: whoever answers is there.
    Ping,
    /// How it is.
    Status,
    /// To answer when everything that was recorded before the request is acted upon.
    Sync,
    /// To end, leaving the kernel as it is.
    Stop,
    /// What one of its parts is asked; the answer is the part's own.
    Ask {
        /// The part's name.
        part: String,
        /// The words that it understands.
        words: Value,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// It is done; with what was asked for, where something was.
    Done(Value),
    /// It is done, and nothing is left to do: the agent leaves.
    Leaving,
    /// It is not done, and why.
    Failed(String),
}

/// Connects to the agent's socket and asks it; `None` where no agent listens.
///
/// # Errors
/// When there is an agent, and it does not answer as it should.
pub fn ask(socket: &Path, request: &Request) -> io::Result<Option<Reply>> {
    let Some(stream) = connect(socket)? else { return Ok(None) };
    let answer = match exchange(stream, &line(request)?) {
        // It ended before it heard: what was sent was never read.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            return Ok(None);
        }
        answer => answer?,
    };
    if answer.is_empty() {
        // It ended between hearing and answering.
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&answer)?))
}

fn exchange(mut stream: UnixStream, line: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST_LINE as u64)).read_until(b'\n', &mut answer)?;
    Ok(answer)
}

/// Whether an agent listens there.
#[must_use]
pub fn is_there(socket: &Path) -> bool {
    matches!(connect(socket), Ok(Some(_)))
}

fn connect(socket: &Path) -> io::Result<Option<UnixStream>> {
    let (address, _folder) = address(socket)?;
    match UnixStream::connect(address) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The path by which a socket can be reached: the address of a socket has room for 107 bytes, and a path may have more
/// (`unix(7)`). Then it leads through the open folder.
pub(super) fn address(socket: &Path) -> io::Result<(PathBuf, Option<std::fs::File>)> {
    const LONGEST: usize = 107;
    if socket.as_os_str().len() <= LONGEST {
        return Ok((socket.to_owned(), None));
    }
    let folder = std::fs::File::open(socket.parent().unwrap_or(Path::new(".")))?;
    let name = socket.file_name().unwrap_or_default();
    Ok((Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name), Some(folder)))
}

/// A message as it is sent.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written_and_nothing_else_is() {
        let ask = Request::Ask { part: "names".into(), words: serde_json::json!({"x": 1}) };
        for request in [Request::Ping, Request::Status, Request::Sync, Request::Stop, ask] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        assert_eq!(serde_json::to_string(&Request::Sync).unwrap(), r#"{"do":"sync"}"#);
        for text in ["", "{}", r#"{"do":"x"}"#, r#"{"do":"ask"}"#, "[1]"] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_agent_that_leaves_before_it_hears_is_none() {
        let path = std::env::temp_dir().join(format!("rnet-wire-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let asker = std::thread::spawn({
            let path = path.clone();
            move || ask(&path, &Request::Ping).unwrap()
        });
        // Gone with what it did not read.
        let (stream, _) = listener.accept().unwrap();
        let mut came = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut came, None).unwrap();
        drop(stream);
        assert_eq!(asker.join().unwrap(), None);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_path_of_any_length_leads_to_a_socket() {
        let long = std::env::temp_dir().join(format!("{}.{}", "x".repeat(120), std::process::id()));
        std::fs::create_dir(&long).unwrap();
        let socket = long.join("agent.sock");
        assert!(!is_there(&socket));
        let (path, _folder) = address(&socket).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        assert!(is_there(&socket));
        drop(listener);
        assert!(!is_there(&socket));
        std::fs::remove_dir_all(&long).unwrap();
    }
}
