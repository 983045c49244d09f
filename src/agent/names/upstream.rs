//! Who is asked for names that nobody here has: the host's own resolvers, as they are now. The agent reads the host's
//! file and says them, because the part that asks can open no file of the host.

use std::{
    cell::RefCell,
    fs,
    io::{self, Read as _},
    net::IpAddr,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::oneshot,
    task,
    time::timeout,
};

use crate::{agent::wire, container::files};

/// How long what was heard is taken to be true.
const FRESH: Duration = Duration::from_secs(1);
/// How long a question waits for the agent; then those of before are asked.
const PATIENCE: Duration = Duration::from_millis(200);
/// As many as glibc asks.
const MOST: usize = 3;
/// Nobody's file is longer, in bytes.
const LONGEST: u64 = 1 << 20;
/// Where the host's resolvers are.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The host's resolvers.
#[derive(Debug)]
pub struct Upstream {
    agent: RefCell<Option<BufReader<UnixStream>>>,
    known: RefCell<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    servers: Vec<IpAddr>,
    own: Vec<IpAddr>,
}

impl Upstream {
    /// Those that the agent says.
    #[must_use]
    pub fn of(agent: UnixStream) -> Self {
        Self { agent: RefCell::new(Some(BufReader::new(agent))), known: RefCell::default() }
    }

    /// Addresses that are not asked, because who asks answers there.
    pub fn set_own(&self, own: Vec<IpAddr>) {
        self.known.borrow_mut().own = own;
    }

    /// Asks the agent where that was some time ago. Whether others are asked from now on.
    pub async fn is_changed(self: &Rc<Self>) -> bool {
        let due = self.known.borrow().looked.is_none_or(|looked| looked.elapsed() >= FRESH);
        // Where the agent was asked and has not answered, nobody waits for it twice.
        let Some(agent) = due.then(|| self.agent.borrow_mut().take()).flatten() else { return false };
        self.known.borrow_mut().looked = Some(Instant::now());
        let (says, hears) = oneshot::channel();
        let this = Rc::clone(self);
        task::spawn_local(async move {
            let _ = says.send(this.look(agent).await);
        });
        matches!(timeout(PATIENCE, hears).await, Ok(Ok(true)))
    }

    async fn look(&self, mut agent: BufReader<UnixStream>) -> bool {
        // An agent that is gone takes this process with it.
        let Ok(servers) = ask(&mut agent).await else { return false };
        *self.agent.borrow_mut() = Some(agent);
        let mut known = self.known.borrow_mut();
        let changed = known.servers != servers;
        known.servers = servers;
        changed
    }

    /// Who is asked: those that are given, or the host's.
    #[must_use]
    pub fn servers(&self, given: &[IpAddr]) -> Vec<IpAddr> {
        let known = self.known.borrow();
        let list = if given.is_empty() { &known.servers } else { given };
        list.iter().filter(|server| !known.own.contains(server)).take(MOST).copied().collect()
    }
}

async fn ask(agent: &mut BufReader<UnixStream>) -> io::Result<Vec<IpAddr>> {
    agent.get_mut().write_all(b"\n").await?;
    let mut line = Vec::new();
    agent.take(wire::LONGEST_LINE as u64).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// The agent's side: says them again whenever it is asked, until nobody is there to ask.
pub async fn tell(part: UnixStream) {
    let mut part = BufReader::new(part);
    let mut line = Vec::new();
    while let Ok(1) = (&mut part).take(1).read_until(b'\n', &mut line).await {
        line.clear();
        let Ok(text) = wire::line(&read(Path::new(RESOLV_CONF))) else { return };
        if part.get_mut().write_all(&text).await.is_err() {
            return;
        }
    }
}

/// Those that a file names, as many as anybody could ask.
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
    fn what_the_agent_says_is_asked_and_ourselves_never() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        task::LocalSet::new().block_on(&runtime, async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut agent = BufReader::new(theirs);
            let upstream = Rc::new(Upstream::of(ours));
            assert_eq!(upstream.servers(&[]), Vec::<IpAddr>::new());
            for (said, changed, asked) in [
                (r#"["127.0.0.53","10.0.0.1"]"#, true, vec![IpAddr::from([127, 0, 0, 53])]),
                (r#"["127.0.0.53","10.0.0.1"]"#, false, vec![IpAddr::from([127, 0, 0, 53])]),
                ("[]", true, vec![]),
            ] {
                upstream.known.borrow_mut().looked = None;
                upstream.set_own(vec![[10, 0, 0, 1].into()]);
                let answer = async {
                    agent.read_line(&mut String::new()).await.unwrap();
                    agent.get_mut().write_all(format!("{said}\n").as_bytes()).await.unwrap();
                };
                assert_eq!(tokio::join!(upstream.is_changed(), answer).0, changed, "{said}");
                assert_eq!(upstream.servers(&[]), asked, "{said}");
                assert!(!upstream.is_changed().await, "nobody is asked again so soon");
            }
            assert_eq!(upstream.servers(&[[9, 9, 9, 9].into()]), [IpAddr::from([9, 9, 9, 9])]);
            // One that does not answer holds up nobody for long, and is asked no second time.
            upstream.known.borrow_mut().looked = None;
            assert!(!upstream.is_changed().await);
            upstream.known.borrow_mut().looked = None;
            assert!(!upstream.is_changed().await);
        });
    }

    #[test]
    fn a_file_is_read_as_it_is_now() {
        let path = std::env::temp_dir().join(format!("rnet-upstream-{}", std::process::id()));
        assert_eq!(read(&path), Vec::<IpAddr>::new());
        fs::write(&path, "nameserver 10.0.1.7\nsearch x\n").unwrap();
        assert_eq!(read(&path), [IpAddr::from([10, 0, 1, 7])]);
        fs::remove_file(&path).unwrap();
    }
}
