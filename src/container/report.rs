//! What the child tells its parent before it becomes the command, and the error that a caller gets from it.
//! Never text on the wire: the child may not allocate, so it sends a number that the parent turns into words.

use std::io;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such command.
    #[error("{program}: command not found")]
    NotFound {
        /// As the caller wrote it.
        program: String,
    },
    /// The command is there and cannot be run.
    #[error("{program}: cannot be run: {}", reason(source))]
    NotExecutable {
        /// As the caller wrote it.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// What was asked for contradicts itself or cannot be.
    #[error("{reason}")]
    Refused {
        /// The whole sentence.
        reason: String,
    },
    /// A step on the way to the command failed.
    #[error("cannot {doing}: {}", reason(source))]
    Step {
        /// What was tried, as in "cannot …".
        doing: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The process was ended from outside before the command started.
    #[error("the process ended before its command started")]
    Ended,
}

impl SpawnError {
    /// The exit code for it: 127 and 126 as a shell has them, 125 for everything that is not the command's fault.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Refused { .. } | Self::Step { .. } | Self::Ended => 125,
        }
    }

    pub(super) fn step(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Step { doing: doing.into(), source: source.into() }
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }
}

/// `strerror` without " (os error 2)", and with what lacks when it is a matter of permission.
fn reason(source: &io::Error) -> String {
    let text = source.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM) => format!("{text} (needs root or CAP_SYS_ADMIN)"),
        _ => text,
    }
}

/// Where the child was when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ready,
    Guard,
    Output,
    Enter,
    Propagation,
    Hostname,
    Room,
    Bind,
    Sysctl,
    Release,
    Page,
    User,
    Directory,
    Execute,
}

impl Step {
    const ALL: [Step; 14] = [
        Step::Ready,
        Step::Guard,
        Step::Output,
        Step::Enter,
        Step::Propagation,
        Step::Hostname,
        Step::Room,
        Step::Bind,
        Step::Sysctl,
        Step::Release,
        Step::Page,
        Step::User,
        Step::Directory,
        Step::Execute,
    ];
}

/// One message of the child. `index` says which file or sysctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub step: Step,
    pub index: u16,
    pub errno: i32,
}

impl Message {
    pub const SIZE: usize = 8;
    pub const READY: Message = Message { step: Step::Ready, index: 0, errno: 0 };

    pub fn new(step: Step, errno: rustix::io::Errno) -> Self {
        Self::at(step, 0, errno)
    }

    pub fn at(step: Step, index: usize, errno: rustix::io::Errno) -> Self {
        Self { step, index: u16::try_from(index).unwrap_or(u16::MAX), errno: errno.raw_os_error() }
    }

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [i0, i1] = self.index.to_le_bytes();
        let [e0, e1, e2, e3] = self.errno.to_le_bytes();
        [self.step as u8, 0, i0, i1, e0, e1, e2, e3]
    }

    pub fn from_bytes([step, _, i0, i1, e0, e1, e2, e3]: [u8; Self::SIZE]) -> Option<Self> {
        let step = *Step::ALL.get(usize::from(step))?;
        let (index, errno) = (u16::from_le_bytes([i0, i1]), i32::from_le_bytes([e0, e1, e2, e3]));
        Some(Self { step, index, errno })
    }
}

/// The words for what the child sends numbers for.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub program: String,
    pub place: &'static str,
    pub hostname: String,
    pub files: Vec<&'static str>,
    pub sysctls: Vec<String>,
    pub user: String,
    pub directory: String,
}

impl Labels {
    pub fn error(&self, message: Message) -> SpawnError {
        let source = io::Error::from_raw_os_error(message.errno);
        let index = usize::from(message.index);
        let file = self.files.get(index).copied().unwrap_or("/etc");
        let doing = match message.step {
            Step::Execute => return self.execution_error(source),
            Step::Guard if message.errno == libc::ESRCH => return SpawnError::Ended,
            Step::Ready | Step::Guard => "tie the process to rnet".to_owned(),
            Step::Output => "set up the process's input and output".to_owned(),
            Step::Enter => self.place.to_owned(),
            Step::Propagation => "keep the container's mounts apart from the host's".to_owned(),
            Step::Hostname => format!("set the hostname {}", self.hostname),
            Step::Room => format!("mount over {file}, which does not exist (an empty file would do)"),
            Step::Bind => format!("mount the container's own file over {file}"),
            Step::Sysctl => format!("set the sysctl {}", self.sysctls.get(index).map_or("", String::as_str)),
            Step::Release => "hear from rnet".to_owned(),
            Step::Page => "serve the page on port 80".to_owned(),
            Step::User => format!("become user {}", self.user),
            Step::Directory => format!("change to the directory {}", self.directory),
        };
        SpawnError::Step { doing, source }
    }

    fn execution_error(&self, source: io::Error) -> SpawnError {
        let program = self.program.clone();
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => SpawnError::NotFound { program },
            _ => SpawnError::NotExecutable { program, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn every_message_survives_the_pipe() {
        for step in Step::ALL {
            let message = Message::at(step, 513, Errno::NOENT);
            assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
        }
        assert_eq!(Message::from_bytes([200, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_missing_command_is_127_and_one_without_permission_126() {
        let labels = Labels { program: "nosuch".to_owned(), ..Labels::default() };
        let missing = labels.error(Message::new(Step::Execute, Errno::NOENT));
        assert_eq!((missing.code(), missing.to_string()), (127, "nosuch: command not found".to_owned()));
        let refused = labels.error(Message::new(Step::Execute, Errno::ACCESS));
        assert_eq!(
            (refused.code(), refused.to_string()),
            (126, "nosuch: cannot be run: Permission denied".into())
        );
    }

    #[test]
    fn a_failed_step_names_what_it_was_about() {
        let labels = Labels { sysctls: vec!["net.ipv4.nosuch=1".to_owned()], ..Labels::default() };
        let error = labels.error(Message::at(Step::Sysctl, 0, Errno::NOENT));
        assert_eq!(error.to_string(), "cannot set the sysctl net.ipv4.nosuch=1: No such file or directory");
        assert_eq!(error.code(), 125);
    }
}
