//! What encrypts, as the part knows it: the kernel's own WireGuard where it has one, or else the process. It is told who
//! the hosts are, begun where it is not there, and left alone by the part's own end.

use std::{
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    agent::{
        cipher::{NAME, READY},
        supervisor::Program,
    },
    cipher::Wanted,
    error::{Error, shown},
    kernel,
    store::Store,
};

/// How long the process may take until packets pass; it takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// What encrypts between hosts.
pub trait Encrypts {
    /// Lets it encrypt between this host and the others; nothing where nothing is wanted. What is so already stays so.
    ///
    /// # Errors
    /// When it does not begin, and why.
    fn bring(&mut self, wanted: Option<Wanted>) -> Result<(), Error>;

    /// Whether this host could encrypt.
    ///
    /// # Errors
    /// Why not.
    fn probe(&self) -> Result<(), Error>;

    /// By what it encrypts; `None` where it does not.
    fn says(&self) -> Option<String>;
}

/// A host that cannot.
pub struct Unable;

impl Encrypts for Unable {
    fn bring(&mut self, wanted: Option<Wanted>) -> Result<(), Error> {
        if wanted.is_some() { self.probe() } else { Ok(()) }
    }

    fn probe(&self) -> Result<(), Error> {
        Err(Error::agent("there is nothing to encrypt with".to_owned()))
    }

    fn says(&self) -> Option<String> {
        None
    }
}

/// What this host encrypts with.
#[must_use]
pub fn at_hand(store: &Store, program: Program) -> Box<dyn Encrypts> {
    if kernel::has_wireguard() {
        Box::new(InKernel { store: store.clone(), wanted: None })
    } else {
        Box::new(Process { store: store.clone(), program, wanted: None, child: None, begun: false })
    }
}

/// By the kernel.
struct InKernel {
    store: Store,
    wanted: Option<Wanted>,
}

impl Encrypts for InKernel {
    fn bring(&mut self, wanted: Option<Wanted>) -> Result<(), Error> {
        let failed = |refusal| Error::kernel("encrypt between hosts", refusal);
        let ours = self.store.cipher()?.is_some();
        let Some(wanted) = wanted else {
            self.wanted = None;
            if ours {
                kernel::take_wireguard().map_err(failed)?;
            }
            return self.store.set_cipher(None);
        };
        if self.wanted.as_ref() == Some(&wanted) && kernel::is_wireguard() {
            return Ok(());
        }
        // On record before it is there; what was there before is somebody else's.
        if !ours {
            kernel::refuse_taken().map_err(failed)?;
        }
        self.store.set_cipher(Some(&wanted))?;
        let key = self.store.private_key()?;
        kernel::bring_wireguard(&key, &wanted).map_err(failed)?;
        self.wanted = Some(wanted);
        Ok(())
    }

    fn probe(&self) -> Result<(), Error> {
        Ok(())
    }

    fn says(&self) -> Option<String> {
        self.wanted.as_ref().map(|_| "WireGuard, in the kernel".to_owned())
    }
}

/// By a process of rnet's own.
struct Process {
    store: Store,
    program: Program,
    wanted: Option<Wanted>,
    /// The process, where this one began it.
    child: Option<Child>,
    begun: bool,
}

impl Process {
    /// The one before, if it ended, leaves nothing behind.
    fn reap(&mut self) {
        let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()) else { return };
        self.child = None;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::warn!("the process that encrypts ended: {how}");
    }

    fn begin(&mut self) -> Result<(), Error> {
        let failed = |error: io::Error| Error::agent(format!("the process that encrypts: {error}"));
        let mut command = Command::new("/proc/self/exe");
        command.arg0("rnet").args(&self.program.words).arg(NAME).current_dir("/");
        let (hears, says) = io::pipe().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(says.try_clone().map_err(failed)?).stderr(says);
        let mut child = command.spawn().map_err(failed)?;
        // Its end of the pipe is to be the only one.
        drop(command);
        let said = heard(hears).map_err(failed)?;
        if said.trim() == READY {
            self.child = Some(child);
            return Ok(());
        }
        let _ = child.kill();
        let _ = child.wait();
        let said = shown(said.trim().trim_start_matches("rnet: "));
        Err(Error::agent(format!("the process that encrypts does not begin: {said}")))
    }
}

/// What is said until the end of a line, of the process or of patience.
fn heard(mut stream: io::PipeReader) -> io::Result<String> {
    let end = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut ready = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
        if poll(&mut ready, Some(&wait))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut buffer = [0; 256];
        let count = stream.read(&mut buffer)?;
        text.extend_from_slice(&buffer[..count]);
        if count == 0 || text.contains(&b'\n') || text.len() > 4096 {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

impl Encrypts for Process {
    fn bring(&mut self, wanted: Option<Wanted>) -> Result<(), Error> {
        self.reap();
        if wanted != self.wanted || !self.begun {
            self.store.set_cipher(wanted.as_ref())?;
            self.wanted.clone_from(&wanted);
            self.begun = true;
        }
        if wanted.is_none() || self.store.is_encrypting()? {
            return Ok(());
        }
        self.begin()
    }

    fn probe(&self) -> Result<(), Error> {
        kernel::probe_tun().map_err(|refusal| Error::kernel("encrypt between hosts", refusal))
    }

    fn says(&self) -> Option<String> {
        let runs = self.wanted.is_some() && self.store.is_encrypting().unwrap_or(false);
        runs.then(|| "WireGuard, in a process of its own (boringtun)".to_owned())
    }
}
