//! What users call a container, and how that becomes a network namespace.

use std::path::{Path, PathBuf};

use rnetkit_drivers::{Invalid, Name};

use crate::{
    error::{Error, shown},
    kernel::{Kernel, Refusal},
};

/// Where named namespaces are (`ip-netns(8)`); `/var/run` is the same place by its old name.
const NAMED: [&str; 2] = ["/run/netns/", "/var/run/netns/"];

/// The longest key: with room for what the store puts around it in the 255 bytes of a file name.
const LONGEST_KEY: usize = 240;

fn key_of(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}

/// A container as users name it. `Display` shows it as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRef {
    given: String,
    /// What it means.
    pub means: Means,
}

/// What a reference to a container means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means {
    /// A container of `rnet run`, or a named namespace.
    Name(Name),
    /// A namespace file.
    Path(PathBuf),
    /// The namespace of a process.
    Pid(u32),
    /// A container of an orchestrator that calls rnet as a CNI plugin: `cni:ID`, or `cni:ID:INTERFACE` for what it has
    /// on one network besides. Only the orchestrator knows where its namespace is.
    Cni(String),
}

impl Means {
    /// What stands before the id of an orchestrator's container.
    pub const CNI: &str = "cni:";
}

impl std::str::FromStr for ContainerRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(Self { given: shown(text), means: text.parse()? })
    }
}

impl From<Name> for ContainerRef {
    fn from(name: Name) -> Self {
        Self { given: name.to_string(), means: Means::Name(name) }
    }
}

impl std::str::FromStr for Means {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(pid) = text.strip_prefix("pid:") {
            let number =
                pid.parse().ok().filter(|number| *number > 0 && pid.bytes().all(|b| b.is_ascii_digit()));
            return number
                .map(Self::Pid)
                .ok_or_else(|| Invalid::new("container", text, "after pid: a process number is expected"));
        }
        if let Some(id) = text.strip_prefix(Self::CNI) {
            let (id, interface) = id.split_once(':').map_or((id, None), |(id, name)| (id, Some(name)));
            Name::parse("container id", id)?;
            interface.map(str::parse::<rnetkit_drivers::InterfaceName>).transpose()?;
            return Ok(Self::Cni(text[Self::CNI.len()..].to_owned()));
        }
        if !text.starts_with('/') {
            return Name::parse("container", text).map(Self::Name);
        }
        if text.contains('\0') || text.len() > 180 {
            return Err(Invalid::new("container", text, "a path has no NUL and at most 180 bytes"));
        }
        if key_of(text).len() > LONGEST_KEY {
            return Err(Invalid::new(
                "container",
                text,
                "the path has too many bytes that are no letters or digits",
            ));
        }
        for folder in NAMED {
            if let Some(name) = text.strip_prefix(folder)
                && let Ok(name) = name.parse()
            {
                return Ok(Self::Name(name));
            }
        }
        let mut words = text.strip_prefix("/proc/").unwrap_or_default().splitn(2, '/');
        if let (Some(pid), Some("ns/net")) = (words.next().and_then(|pid| pid.parse().ok()), words.next()) {
            return Ok(Self::Pid(pid));
        }
        Ok(Self::Path(text.into()))
    }
}

impl std::fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.given)
    }
}

impl ContainerRef {
    /// The container of that name, shown as this one was given.
    ///
    /// # Errors
    /// When the name is none.
    pub fn renamed(&self, name: &str) -> Result<Self, Invalid> {
        Ok(Self { given: self.given.clone(), means: name.parse()? })
    }

    /// What the container is called, however it was given.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.means {
            Means::Name(name) => name.to_string(),
            Means::Path(path) => path.to_string_lossy().into_owned(),
            Means::Pid(pid) => format!("pid:{pid}"),
            Means::Cni(id) => format!("{}{id}", Means::CNI),
        }
    }

    /// A file name that is the container's alone. Names have no `%`, so nothing else becomes a name.
    #[must_use]
    pub fn key(&self) -> String {
        key_of(&self.name())
    }

    /// Opens the namespace. `process`: the process of the container of that name, where `rnet run` started one.
    ///
    /// # Errors
    /// When there is none, when it is no network namespace, or when it is the host's own.
    pub fn open<K: Kernel>(&self, process: Option<u32>, kernel: &K) -> Result<(K::Netns, PathBuf), Error> {
        let path = match (&self.means, process) {
            (_, Some(pid)) | (&Means::Pid(pid), None) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            (Means::Name(name), None) => Path::new(NAMED[0]).join(name.as_str()),
            (Means::Path(path), None) => path.clone(),
            (Means::Cni(_), None) => {
                let reason = ": only its orchestrator knows where its network namespace is".to_owned();
                return Err(Error::ContainerNotFound { name: self.to_string(), reason });
            }
        };
        self.open_at(path, kernel)
    }

    /// As `open`, with the namespace file that somebody else names.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_at<K: Kernel>(&self, path: PathBuf, kernel: &K) -> Result<(K::Netns, PathBuf), Error> {
        let netns = kernel.open(&path).map_err(|refusal| self.refused(&path, &refusal))?;
        if kernel.identity(&netns) == kernel.host_identity() {
            return Err(Error::HostNamespace { name: self.to_string() });
        }
        Ok((netns, path))
    }

    fn refused(&self, path: &Path, refusal: &Refusal) -> Error {
        let named = self.to_string();
        match (refusal.errno, &self.means) {
            (libc::ENOENT | libc::ESRCH | libc::ENOTDIR, Means::Name(_)) => Error::ContainerNotFound {
                name: named,
                reason: format!(": no container of rnet run, and no {}", path.display()),
            },
            (libc::ENOENT | libc::ESRCH | libc::ENOTDIR, Means::Pid(_)) => {
                Error::ContainerNotFound { name: named, reason: ": there is no such process".to_owned() }
            }
            (libc::ENOENT | libc::ESRCH | libc::ENOTDIR, Means::Cni(_)) => Error::ContainerNotFound {
                name: named,
                reason: format!(": there is no {}", shown(&path.to_string_lossy())),
            },
            (libc::ENOENT | libc::ENOTDIR, Means::Path(_)) => {
                Error::ContainerNotFound { name: named, reason: ": there is no such file".to_owned() }
            }
            (libc::EINVAL | libc::ENXIO | libc::ENODEV, _) => Error::NotNamespace {
                path: shown(&path.to_string_lossy()),
                reason: "it is not a network namespace".to_owned(),
            },
            (libc::EPERM | libc::EACCES, _) => {
                Error::NotPermitted { step: format!("open the network namespace of {named}") }
            }
            _ => Error::NotNamespace { path: shown(&path.to_string_lossy()), reason: refusal.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Anything, and what is nearly right.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,40}",
            "(pid:|cni:|/proc/|/run/netns/|/var/run/netns/|/)?[a-z0-9._/%+-]{0,20}(/ns/net|:[a-z0-9]{1,8})?",
            any::<String>()
        ]
    }

    proptest! {
        #[test]
        fn any_text_is_a_container_with_a_safe_key_or_refused_in_one_line(text in text()) {
            match text.parse::<ContainerRef>() {
                Ok(container) => {
                    let key = container.key();
                    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-%".contains(&byte);
                    prop_assert!(key.bytes().all(safe) && !key.starts_with('.') && key.len() <= LONGEST_KEY, "{key}");
                    prop_assert!(!container.to_string().chars().any(char::is_control));
                    let again: ContainerRef = container.name().parse().unwrap();
                    prop_assert_eq!(again.key(), key, "its name leads to it");
                }
                Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control), "{error}"),
            }
        }

        #[test]
        fn two_containers_never_share_a_key(a in text(), b in text()) {
            let (Ok(a), Ok(b)) = (a.parse::<ContainerRef>(), b.parse::<ContainerRef>()) else { return Ok(()) };
            prop_assert_eq!(a.key() == b.key(), a.means == b.means);
        }
    }

    #[test]
    fn one_namespace_has_one_name_however_it_is_written() {
        for (text, key) in [
            ("web", "web"),
            ("/run/netns/web", "web"),
            ("/var/run/netns/web", "web"),
            ("pid:42", "pid%3a42"),
            ("/proc/42/ns/net", "pid%3a42"),
            ("/a b", "%2fa%20b"),
            ("cni:web", "cni%3aweb"),
            ("cni:web:eth1", "cni%3aweb%3aeth1"),
        ] {
            assert_eq!(text.parse::<ContainerRef>().unwrap().key(), key);
        }
    }

    #[test]
    fn a_path_whose_key_would_be_too_long_for_a_file_is_refused() {
        let path = |count| format!("/{}", "ü".repeat(count));
        assert_eq!(path(39).parse::<ContainerRef>().unwrap().key().len(), 237);
        assert_eq!(
            path(40).parse::<ContainerRef>().unwrap_err().reason,
            "the path has too many bytes that are no letters or digits"
        );
    }

    #[test]
    fn what_names_no_container_is_refused() {
        for text in [
            "",
            "..",
            "a/b",
            "pid:",
            "pid:-1",
            "pid:x",
            "pid:+1",
            "a b",
            "x\n",
            "cni:",
            "cni:../x",
            "cni:a:b/c",
            "cni:a:",
        ] {
            assert!(text.parse::<ContainerRef>().is_err(), "{text}");
        }
    }
}
